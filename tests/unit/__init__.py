"""The component under Pulumi's mocks, and its schema."""
