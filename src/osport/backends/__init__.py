"""The engines that osport speaks to. Nobody imports them: entry points name them."""
