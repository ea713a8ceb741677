"""The trainings of `neuralode train` and `neuralode fit`, one folder each."""
