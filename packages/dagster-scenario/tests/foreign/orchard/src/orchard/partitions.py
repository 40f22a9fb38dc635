"""What the business is cut into."""

import dagster as dg

BERLIN = "Europe/Berlin"

market_days = dg.DailyPartitionsDefinition("2024-03-25", timezone=BERLIN)
fruits = dg.StaticPartitionsDefinition(["apple", "cherry", "pear"])
fruits_by_day = dg.MultiPartitionsDefinition({"day": market_days, "fruit": fruits})
# A grower is known from the first delivery on.
growers = dg.DynamicPartitionsDefinition(name="growers")
