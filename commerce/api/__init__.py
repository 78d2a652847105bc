"""How the REST API speaks: JSON, problem details, pages. Reached through settings, never imported by the apps."""
