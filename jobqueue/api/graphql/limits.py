"""How large an operation may be: tokens, depth, aliases, how many of its fields list something or count jobs, and how
often it asks for what is large under another name.

An operation is weighed with its fragments spread out, each fragment once, so that the time this takes is linear
in the length of the document, however often its fragments use each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    ListTypeNode,
    NamedTypeNode,
    NonNullTypeNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    TypeNode,
    ValidationContext,
    ValidationRule,
    VariableDefinitionNode,
)
from strawberry.extensions import AddValidationRules, MaxTokensLimiter, SchemaExtension

from jobqueue.api.graphql.errors import CODE, LIMIT_EXCEEDED
from jobqueue.api.schemas import MAX_BULK_ITEMS

MAX_TOKENS = 1_000
MAX_QUERY_LENGTH = 64 * 1024
MAX_DEPTH = 8
"""`jobsConnection { edges { node { errors { message } } } }` is 5 deep. Introspection has a limit of its own."""
MAX_ALIASES = 50
MAX_LISTS = 5
MAX_BULKS = 1
MAX_JOBS = 1_000
"""In one `EnqueueMany`. What GraphQL makes of them, and of the answer, it makes in one go, and all others wait for it:
about a tenth of a second for these."""
MAX_COPIES = 5

LISTS = frozenset({"Jobs", "jobsConnection", "JobLogs", "JobStatus", "Queues", "Workers"})
"""Fields that cost the store more than a look at one job."""

NEW_JOB = "NewJob"
"""The type of what `EnqueueMany` takes."""

BULKS = frozenset({"EnqueueMany"})
"""Each takes many jobs; by a variable that is used twice so does a small request."""

LARGE = frozenset(
    {
        "payload",
        "result",
        "fault",
        "errors",
        "message",
        "fields",
        "running",
        "nodes",
        "edges",
        "node",
        "items",
        "refused",
    }
)
"""Fields that may be large, and those that hold them. Under its own name each is answered once, however often it is
asked for; under fifty names a page of jobs would be an answer of 200 MB."""


class Weight(NamedTuple):
    """What an operation asks for, with its fragments spread out."""

    depth: int = 0
    aliases: int = 0
    lists: int = 0
    bulks: int = 0
    copies: int = 0
    """Fields that are large, under other names; and whatever has another name in an answer of a thousand items."""


LIMITS: Mapping[str, tuple[Callable[[Weight], int], int]] = {
    "levels": (lambda weight: weight.depth, MAX_DEPTH),
    "aliases": (lambda weight: weight.aliases, MAX_ALIASES),
    f"of the fields {', '.join(sorted(LISTS))}": (lambda weight: weight.lists, MAX_LISTS),
    f"of the fields {', '.join(sorted(BULKS))}": (lambda weight: weight.bulks, MAX_BULKS),
    "large fields under other names": (lambda weight: weight.copies, MAX_COPIES),
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
            bulks=sum(weight.bulks for weight in weights),
            copies=sum(weight.copies for weight in weights),
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
        renamed = field.alias is not None
        return Weight(
            depth=inside.depth + 1,
            aliases=inside.aliases + renamed,
            lists=inside.lists + (name in LISTS),
            bulks=inside.bulks + (name in BULKS),
            copies=inside.aliases if name in BULKS else inside.copies + (renamed and name in LARGE),
        )

    def _weigh_fragment(self, name: str) -> Weight:
        if name not in self._known:
            # A fragment inside itself, or one that is not there, weighs nothing: other rules refuse both.
            self._known[name] = Weight()
            fragment = self._fragments.get(name)
            self._known[name] = self.weigh(fragment.selection_set) if fragment is not None else Weight()
        return self._known[name]


def items_limit(variables: Mapping[str, Any]) -> type[ValidationRule]:
    """A rule that refuses more jobs in one of these variables than `EnqueueMany` takes. To make the input objects of
    74,000 takes seconds, so it comes before that; in the text of an operation there is no room for so many."""

    class ItemsLimit(ValidationRule):
        def enter_variable_definition(self, node: VariableDefinitionNode, *_: Any) -> None:
            given = variables.get(node.variable.name.value)
            if isinstance(given, list) and len(given) > MAX_JOBS and _named(node.type) == NEW_JOB:
                message = f"at most {MAX_JOBS} jobs are taken; POST /jobs/bulk takes {MAX_BULK_ITEMS}"
                self.report_error(GraphQLError(message, node, extensions={CODE: LIMIT_EXCEEDED}))

    return ItemsLimit


class LimitItems(SchemaExtension):
    """Adds the rule that depends on the variables."""

    def on_operation(self) -> Iterator[None]:
        context = self.execution_context
        context.validation_rules = (*context.validation_rules, items_limit(context.variables or {}))
        yield


def _named(node: TypeNode) -> str:
    while isinstance(node, ListTypeNode | NonNullTypeNode):
        node = node.type
    return node.name.value if isinstance(node, NamedTypeNode) else ""


EXTENSIONS: Sequence[Callable[[], SchemaExtension]] = (
    lambda: MaxTokensLimiter(max_token_count=MAX_TOKENS),
    lambda: AddValidationRules([WeightLimit]),
    LimitItems,
)
