"""From what somebody types to a person: a person id, ``key_type:key``, or a key alone."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import Fault

SHOWN = 5  # examples in a message


def resolve_person(identities: pa.Table, text: str) -> str:
    """The person id that ``text`` means; ``identities`` is the published table.

    Tried in this order: a person id, ``key_type:key``, a key alone. Raises ``Fault`` for a person
    that nobody knows, and for a key that more than one person has.
    """
    if pc.any(pc.equal(identities["person_id"], text)).as_py():
        return text
    full = pc.binary_join_element_wise(identities["key_type"], identities["key"], ":")
    for names in (full, identities["key"]):
        found = identities.filter(pc.equal(names, text))
        persons = sorted(set(found["person_id"].to_pylist()))
        if len(persons) == 1:
            return persons[0]
        if persons:
            keys = sorted(
                f"{kind}:{key}"
                for kind, key in zip(
                    found["key_type"].to_pylist(), found["key"].to_pylist(), strict=True
                )
            )
            raise Fault(
                f"person: {text!r} is a key of {len(persons)} persons; "
                f"say which: {', '.join(keys[:SHOWN])}"
            )
    known = sorted(pc.unique(identities["person_id"]).to_pylist())
    raise Fault(
        f"person: nobody is known as {text!r} among {len(known)} persons; "
        f"try one of them: {', '.join(known[:SHOWN])}"
    )
