package db

// SchemaVersion is the schema that this code is written for, as delta_installation.schema_version has it.
const SchemaVersion = 1
