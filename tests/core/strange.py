"""Events in which something is not as it should be."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.core.build import entry, job, look

ABSENT = object()
ARABIC_5 = "\N{ARABIC-INDIC DIGIT FIVE}"
IDS = [
    "1-0",
    "9-0",
    "10-0",
    "10-1",
    "10-10",
    "10-9",
    "99-0",
    "99-10",
    "100-0",
    "18446744073709551615-18446744073709551615",
]


def changed(value, path, to):
    *folders, name = path.split(".")
    value = {**value}
    at = value
    for folder in folders:
        at[folder] = {**at[folder]}
        at = at[folder]
    if to is ABSENT:
        del at[name]
    else:
        at[name] = to
    return value


ENTRY = entry("active", 5_000, job(processed_on=5_000, failed_reason="no", stacktrace=["no"]), fields={"prev": "wait"})
LOOK = look("active", 5_000, job(), lock_ttl_ms=5)

anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.just(1.5), st.sampled_from(["", "1", "wait"])),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=3,
)
paths = st.sampled_from(
    [
        *ENTRY, *LOOK, "stalled", *[f"job.{name}" for name in ENTRY["job"]],
        *[f"job.{name}" for name in ("finished_on", "return_value", "counts_starts", "progress", "parent")],
    ]
)  # fmt: skip
ids = st.one_of(st.from_regex(rf"\A[0-9{ARABIC_5}]{{0,22}}-[0-9{ARABIC_5}]{{0,22}}\Z"), st.sampled_from(IDS))


@st.composite
def nearly_events(draw):
    """An event in which a few places hold anything at all, or nothing."""
    value = draw(st.sampled_from([ENTRY, LOOK]))
    for path in draw(st.lists(paths, max_size=3, unique=True)):
        if "." in path and not isinstance(value.get("job"), dict):
            continue
        name = path.rpartition(".")[2]
        absent = draw(st.integers(0, 4)) == 0 and name in (value["job"] if "." in path else value)
        value = changed(value, path, ABSENT if absent else draw(ids if path == "stream_id" else anything))
    return value
