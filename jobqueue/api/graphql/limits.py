"""How large an operation may be: tokens, depth, aliases, and how many of its fields list something or count jobs.

An operation is weighed with its fragments spread out, each fragment once, so that the time this takes is linear
in the length of the document, however often its fragments use each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    ValidationContext,
    ValidationRule,
)
from strawberry.extensions import AddValidationRules, MaxTokensLimiter, SchemaExtension

from jobqueue.api.graphql.errors import CODE, LIMIT_EXCEEDED

MAX_TOKENS = 1_000
MAX_QUERY_LENGTH = 64 * 1024
MAX_DEPTH = 8
"""`jobsConnection { edges { node { errors { message } } } }` is 5 deep. Introspection has a limit of its own."""
MAX_ALIASES = 50
MAX_LISTS = 5

LISTS = frozenset({"Jobs", "jobsConnection", "JobLogs", "JobStatus", "Queues", "Workers"})
"""Fields that cost the store more than a look at one job."""


class Weight(NamedTuple):
    """What an operation asks for, with its fragments spread out."""

    depth: int = 0
    aliases: int = 0
    lists: int = 0


LIMITS: Mapping[str, tuple[Callable[[Weight], int], int]] = {
    "levels": (lambda weight: weight.depth, MAX_DEPTH),
    "aliases": (lambda weight: weight.aliases, MAX_ALIASES),
    f"of the fields {', '.join(sorted(LISTS))}": (lambda weight: weight.lists, MAX_LISTS),
}


class WeightLimit(ValidationRule):
    """Refuses operations that are beyond one of the limits."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self._scales = Scales(
            definition for definition in context.document.definitions if isinstance(definition, FragmentDefinitionNode)
        )

    def enter_operation_definition(self, node: OperationDefinitionNode, *_: Any) -> None:
        weight = self._scales.weigh(node.selection_set)
        for what, (measure, most) in LIMITS.items():
            if measure(weight) > most:
                message = f"an operation may have at most {most} {what}"
                self.report_error(GraphQLError(message, node, extensions={CODE: LIMIT_EXCEEDED}))


class Scales:
    """Weighs selections; remembers the weights of fragments."""

    def __init__(self, fragments: Iterable[FragmentDefinitionNode]) -> None:
        self._fragments = {fragment.name.value: fragment for fragment in fragments}
        self._known: dict[str, Weight] = {}

    def weigh(self, selections: SelectionSetNode | None) -> Weight:
        """The weight of a selection set."""
        weights = [self._weigh_one(selection) for selection in selections.selections] if selections else []
        return Weight(
            depth=max((weight.depth for weight in weights), default=0),
            aliases=sum(weight.aliases for weight in weights),
            lists=sum(weight.lists for weight in weights),
        )

    def _weigh_one(self, selection: SelectionNode) -> Weight:
        match selection:
            case FieldNode():
                return self._weigh_field(selection)
            case InlineFragmentNode():
                return self.weigh(selection.selection_set)
            case FragmentSpreadNode():
                return self._weigh_fragment(selection.name.value)
        raise TypeError(f"no selection: {selection.kind}")

    def _weigh_field(self, field: FieldNode) -> Weight:
        name = field.name.value
        if name.startswith("__"):
            return Weight(aliases=field.alias is not None)
        inside = self.weigh(field.selection_set)
        return Weight(inside.depth + 1, inside.aliases + (field.alias is not None), inside.lists + (name in LISTS))

    def _weigh_fragment(self, name: str) -> Weight:
        if name not in self._known:
            # A fragment inside itself, or one that is not there, weighs nothing: other rules refuse both.
            self._known[name] = Weight()
            fragment = self._fragments.get(name)
            self._known[name] = self.weigh(fragment.selection_set) if fragment is not None else Weight()
        return self._known[name]


EXTENSIONS: Sequence[Callable[[], SchemaExtension]] = (
    lambda: MaxTokensLimiter(max_token_count=MAX_TOKENS),
    lambda: AddValidationRules([WeightLimit]),
)
