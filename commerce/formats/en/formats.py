# T is the abbreviation of the time zone.
DATETIME_FORMAT = "Y-m-d H:i:s T"
