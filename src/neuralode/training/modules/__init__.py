"""Lightning modules that several tasks and estimators share."""
