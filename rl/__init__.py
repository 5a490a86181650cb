"""Critics and what they learn from: values of actions, offline and hybrid learning."""
