"""Date formats of admin. Every language shows seconds, because operators search for events by their time."""
