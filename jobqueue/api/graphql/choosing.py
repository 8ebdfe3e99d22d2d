"""Which operation of a document is executed: the only one, or the one that is named.

Strawberry takes the first one where none is named, though clients that send a document of several have forgotten to
say which: a mutation that nobody meant would be executed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphql import DocumentNode, GraphQLError, OperationDefinitionNode, ValidationRule
from strawberry.extensions import SchemaExtension

SEVERAL = "the query has several operations: name the one that is meant as operationName"


class OneOperation(ValidationRule):
    """Refuses documents of several operations."""

    def enter_document(self, node: DocumentNode, *_: Any) -> None:
        operations = [each for each in node.definitions if isinstance(each, OperationDefinitionNode)]
        if len(operations) > 1:
            self.report_error(GraphQLError(SEVERAL, operations))


class ChooseOperation(SchemaExtension):
    """Adds that rule where no operation is named."""

    def on_operation(self) -> Iterator[None]:
        context = self.execution_context
        # Before the document is parsed this is the name that was given; afterwards that of the first operation too.
        if context.operation_name is None:
            context.validation_rules = (*context.validation_rules, OneOperation)
        yield
