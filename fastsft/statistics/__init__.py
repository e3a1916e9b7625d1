"""How rollouts are distributed, before anything is converted."""
