# With the abbreviation of the zone.
DATETIME_FORMAT = "Y-m-d H:i:s T"
