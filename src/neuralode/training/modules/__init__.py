"""Lightning modules and data modules that estimators and tasks share."""
