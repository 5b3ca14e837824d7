"""Your own loss: `check` judges an implementation from outside, `audit` shows where one run loses its digits."""
