"""docs/topics.md and docs/asyncapi.json: the topics of the topology, and their records as `schemas` has them."""

from __future__ import annotations

import inspect
import json
from typing import Any, Final, get_args

from pydantic.json_schema import models_json_schema

from streams import __version__, topology
from streams.docs import schemas
from streams.docs.schemas.words import DeadLetterReason, Shape

PREFIX: Final = "bullmq"
_REF: Final = "#/components/schemas/{model}"
_HIDDEN: Final = frozenset({"title"})

_HEAD: Final = """<!-- Made by `python -m streams.docs`; change the code instead. -->

# Topics and records

Topics are called `<kafka.topic_prefix>.<topic>.v1`, for instance `{example}`. They are created and corrected by
`bullmq-streams topics apply` and by nothing else. [asyncapi.json](asyncapi.json) says the same for programs: AsyncAPI
3.0, with a JSON Schema of each record.

| topic | key | cleanup | partitions | value |
|---|---|---|---|---|
"""

_RULES: Final = """
- **Read with `read_committed`.** Records of transactions that were aborted are in the log, too.
- **Job key**: `<source>/<queue>/<job id>` in UTF-8; in source and queue `%` and `/` are written `%25` and `%2F`.
  Entries that concern no job have an empty id: `<source>/<queue>/`.
- **Partitions**: the topics with `kafka.partitions` partitions put a key on the same one: murmur2, the default of the
  Java client; clients built on librdkafka set `partitioner=murmur2_random`.
- **Values** are JSON objects in UTF-8, in snake_case; times are milliseconds since the epoch. Ignore fields that you do
  not know: new ones may come.
- **Record time** is that of the entry in Redis (at most a minute ahead of the bridge's clock), and retention counts
  from it.
- **CloudEvents** 1.0 in Kafka's binary mode, in the headers `ce_specversion` `ce_id` `ce_type` `ce_source` `ce_time`
  `content-type`, on all topics that are no tables. `ce_source` is `/<source>/<queue>`. A repeated record (possible with
  `delivery = "at_least_once"`) has the same `ce_id`.
- **Order**: within a partition the records of a stream stand in the order (`epoch`, `stream_id`, entry before
  observation, `observed_at`). `epoch` counts the histories of a stream: in another one ids may begin again.
"""


def topics_page() -> str:
    """docs/topics.md."""
    lines = [_HEAD.format(example=topology.full_name(PREFIX, topology.STATUS)).rstrip()]
    lines += [_topic_row(topic) for topic in topology.TOPICS]
    lines.append(_RULES)
    for topic in topology.TOPICS:
        lines += [f"## `{topic.name}`", "", f"{_sentence(topic.value)}", ""]
        if topic.name in schemas.CLOUD_EVENTS:
            lines += [f"`ce_type`: {schemas.CLOUD_EVENTS[topic.name]}.", f"`ce_id`: {schemas.IDS[topic.name]}.", ""]
        for shape in schemas.VALUES[topic.name]:
            lines += [*_shape(shape), ""]
        if topic.name == topology.DEAD_LETTERS:
            lines += [*_dead_letters(), ""]
    lines += ["## Parts", ""]
    for shape in schemas.PARTS:
        lines += [*_shape(shape), ""]
    return "\n".join(lines).rstrip() + "\n"


def _topic_row(topic: topology.Topic) -> str:
    days = "" if topic.retention_ms is None else f", {topic.retention_ms // topology.DAY_MS} d"
    kept = topic.cleanup.replace(",", ", ") + days
    partitions = "`kafka.partitions`" if topic.partitions is None else str(topic.partitions)
    return f"| `{topic.name}` | {_code(topic.key)} | {kept} | {partitions} | {topic.value} |"


def _code(text: str) -> str:
    return f"`{text}`" if "<" in text else text


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _shape(shape: type[Shape]) -> list[str]:
    about = inspect.cleandoc(shape.__doc__ or "")
    lines = [f"### {shape.__name__}", "", about, "", "| field | type | |", "|---|---|---|"]
    definition = shape.model_json_schema(by_alias=True)
    required = definition.get("required", [])
    for name, field in definition["properties"].items():
        kind = _kind(field)
        lines.append(f"| `{name}` | {kind}{'' if name in required else ', optional'} | {_about(field)} |")
    return lines


def _about(field: dict[str, Any]) -> str:
    return str(field.get("description", "")).replace("\n", " ")


def _kind(field: dict[str, Any]) -> str:
    """A type in words."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(option) for option in field["anyOf"]))
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " ".join(f"`{word}`" for word in field["enum"])
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}"
    if field.get("type") == "object":
        return "object"
    return {"integer": "integer", "string": "text", "boolean": "boolean", "null": "null"}.get(
        field.get("type", ""), "any JSON"
    )


def _dead_letters() -> list[str]:
    reasons = ", ".join(f"`{reason}`" for reason in get_args(DeadLetterReason))
    lines = ["Value and key are what came. Where it came from and why it is here stands in the headers:", ""]
    lines += ["| header | |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in schemas.DEAD_LETTER_HEADERS.items()]
    return [*lines, "", f"Reasons: {reasons}."]


# -- AsyncAPI ---------------------------------------------------------------------------------------------------------


def asyncapi_page() -> str:
    """docs/asyncapi.json."""
    return json.dumps(asyncapi(), indent=1, ensure_ascii=False) + "\n"


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of all topics."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "bullmq-streams",
            "version": __version__,
            "description": "BullMQ's jobs on Kafka. Made by `python -m streams.docs`.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in topology.TOPICS},
        "operations": {
            f"write-{topic.name}": {"action": "send", "channel": {"$ref": f"#/channels/{topic.name}"}}
            for topic in topology.TOPICS
        },
        "components": {"schemas": definitions(), "messageTraits": {"cloudEvent": {"headers": _cloud_event()}}},
    }


def definitions() -> dict[str, Any]:
    """JSON Schema (2020-12) of every record, by name; they refer to each other as components of AsyncAPI."""
    shapes = [shape for topic in schemas.VALUES.values() for shape in topic]
    _, document = models_json_schema([(shape, "validation") for shape in shapes], by_alias=True, ref_template=_REF)
    bare: dict[str, Any] = _without_titles(document["$defs"])
    return bare


def _without_titles(value: Any) -> Any:
    """Pydantic's titles repeat the names; a property called `title` would be an object and stays."""
    if isinstance(value, dict):
        return {
            name: _without_titles(item)
            for name, item in value.items()
            if not (name in _HIDDEN and isinstance(item, str))
        }
    return [_without_titles(item) for item in value] if isinstance(value, list) else value


def _channel(topic: topology.Topic) -> dict[str, Any]:
    config: dict[str, Any] = {"cleanup.policy": topic.cleanup.split(",")}
    if topic.retention_ms is not None:
        config["retention.ms"] = topic.retention_ms
    binding: dict[str, Any] = {"topicConfiguration": config, "bindingVersion": "0.5.0"}
    if topic.partitions is not None:
        binding["partitions"] = topic.partitions
    return {
        "address": topology.full_name("{prefix}", topic.name),
        "parameters": {"prefix": {"default": PREFIX, "description": "The setting kafka.topic_prefix."}},
        "description": _sentence(topic.value),
        "messages": _messages(topic),
        "bindings": {"kafka": binding},
    }


def _messages(topic: topology.Topic) -> dict[str, Any]:
    common: dict[str, Any] = {
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": "0.5.0"}}
    }
    if topic.name in schemas.CLOUD_EVENTS:
        common["traits"] = [{"$ref": "#/components/messageTraits/cloudEvent"}]
    if topic.name == topology.DEAD_LETTERS:
        headers = {name: {"type": "string", "description": text} for name, text in schemas.DEAD_LETTER_HEADERS.items()}
        return {"DeadLetter": {**common, "headers": {"type": "object", "properties": headers}, "payload": {}}}
    return {
        shape.__name__: {**common, "payload": {"$ref": _REF.format(model=shape.__name__)}}
        for shape in schemas.VALUES[topic.name]
    }


def _cloud_event() -> dict[str, Any]:
    names = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type")
    fixed = {"ce_specversion": {"const": "1.0"}, "ce_time": {"format": "date-time"}}
    return {
        "type": "object",
        "required": list(names),
        "properties": {name: {"type": "string", **fixed.get(name, {})} for name in names},
    }
