"""Everything that is promised, on real parts; mocks of Pulumi in unit/ alone.  What several folders use is in support/."""
