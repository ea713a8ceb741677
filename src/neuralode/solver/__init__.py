"""The public solvers: `solve`, `Stepper`, `solve_ensemble`, and solves with doses."""
