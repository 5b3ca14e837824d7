"""Your own loss: `check` judges an implementation against the contract, `audit` shows where one run loses its digits."""
