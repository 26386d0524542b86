"""Tables, verdicts, figures and the page, from files that the analyses left on disk."""
