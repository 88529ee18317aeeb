"""JSON Schema of the models, with what pydantic cannot see in them."""

from __future__ import annotations

import re
from typing import Any

from pydantic.json_schema import CoreModeRef, DefsRef, GenerateJsonSchema, JsonSchemaMode


class SpecJsonSchema(GenerateJsonSchema):
    """Names its dialect, requires `kind` of each member of a union, and tells layers by their names."""

    def generate(self, schema: Any, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
        """The schema of a model."""
        made = super().generate(schema, mode)
        for part in made.get("$defs", {}).values():
            if "kind" in part.get("properties", {}):  # in Python its default says it
                part["required"] = ["kind", *part.get("required", [])]
        return {"$schema": self.schema_dialect, **made}

    def get_defs_ref(self, core_mode_ref: CoreModeRef) -> DefsRef:
        """Layers are named as in the protobuf contract: a Dropout is also a part of a regularization."""
        ref, mode = core_mode_ref
        named = re.sub(r"^(dropnorm\.spec\.layers\.\w+)", r"\1Layer", ref)
        return super().get_defs_ref((type(ref)(named), mode))
