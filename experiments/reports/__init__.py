"""Pages that need nothing but themselves: a run's report and the quality control of stores."""
