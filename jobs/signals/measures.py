"""The names of the features, and the spans of time that they are counted over."""

from __future__ import annotations

HALF_LIVES = (3, 7, 14, 30, 60, 120)  # days
BASKET_HALF_LIVES = (2, 8, 25)  # of the person's own baskets
SPANS = (7, 28, 84)  # days
CATEGORY_HALF_LIVES = (14, 60)  # days
SHOP_HALF_LIVES = (7, 28, 84)  # days

# Of a person and an item: purchases, ...
PAIR = (
    "baskets", *(f"decayed_{days}" for days in HALF_LIVES),
    *(f"decayed_baskets_{count}" for count in BASKET_HALF_LIVES),
    *(f"baskets_{days}" for days in SPANS), "days_since", "days_since_first", "baskets_since",
    "baskets_since_first", "mean_gap", "last_gap", "gap_deviation", "due", "basket_share",
    "quantity", "value", "place",
)  # fmt: skip
# ... and interest short of a purchase, at all and in the person's latest session.
INTEREST = ("looks_decayed_14", "carts_decayed_14", "days_since_interest", "session_interest")
# Of a person.
PERSON = (
    "p_baskets", "p_days_since", "p_gap", *(f"p_baskets_{days}" for days in SPANS[1:]), "p_lines",
    "p_lines_28", "p_items", "p_repeated", "p_paid",
)  # fmt: skip
# ... and of the latest session, in which something may have been wanted that was not bought.
SESSION = ("s_days_since", "s_wanted", "s_items")
# Of the others of a person's household: how many there are, and their purchases of the item.
HOUSEHOLD = ("h_mates", "h_decayed_60", "h_days_since")
# Of an item and, named c_, of its category.
ITEM = (
    "i_buyers", "i_repeated", *(f"i_sold_{days}" for days in SHOP_HALF_LIVES), "i_trend", "i_gap",
    "i_rebought", "i_new_buyers", "i_paid", "i_discount", "i_looks", "i_age",
    "c_rebought", "c_trend",
)  # fmt: skip
# Of a person and a category, the whole path (narrow) or its first two steps (broad).
CATEGORY = tuple(
    f"{level}_{name}"
    for level in ("narrow", "broad")
    for name in (
        *(f"decayed_{days}" for days in CATEGORY_HALF_LIVES), "days_since", "baskets", "due",
        "interest_14", "session",
    )
)  # fmt: skip
# What two of the above say of each other, and what vectors say.
CROSSED = (
    "share_of_narrow", "share_of_broad", "rate_at_pace", "days_since_over_item_gap",
    "price_over_paid", "affinity", "taste",
)  # fmt: skip

MEASURES = (*PAIR, *INTEREST, *PERSON, *SESSION, *HOUSEHOLD, *ITEM, *CATEGORY, *CROSSED)
