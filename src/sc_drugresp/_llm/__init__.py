"""Questions to language models: what is asked, who is asked, what is kept of the answers."""
