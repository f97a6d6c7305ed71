"""What people did after a cut, told of the persons that were known at it."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

KEY = ["key_type", "key"]


def of_persons(after: DataFrame, keyed: DataFrame) -> DataFrame:
    """Events after a cut under the persons as known at it.

    ``after``: rows with key_type, key, and the ``person_id`` and ``resolved_by`` known later, as of
    ``history``; ``keyed``: the table ``identities`` as of the cut. The person is that of the key
    then; a key that was unknown then is the person who then held the founding key of the person it
    belongs to later, and so is one on which somebody else had logged in. Events of who was unknown
    altogether are left out.
    """
    then = keyed.select(*KEY, F.col("person_id").alias("then"))
    founding = keyed.select(
        F.concat_ws(":", *KEY).alias("person_id"), F.col("person_id").alias("founded")
    )
    by_login = F.col("resolved_by") == "login"
    person = F.when(by_login, F.col("founded")).otherwise(F.coalesce("then", "founded"))
    rest = [F.col(name) for name in after.columns if name != "person_id"]
    return (
        after.join(then, on=KEY, how="left")
        .join(founding, on="person_id", how="left")
        .where(person.isNotNull())
        .select(person.alias("person_id"), *rest)
    )
