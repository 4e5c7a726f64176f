"""What flows through osport: requests, completions, facts, capabilities, stages."""
