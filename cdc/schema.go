package cdc

import "strings"

// SchemaChange is the difference between the definitions of a table at two consecutive changes. It comes right before
// the first change under the new definition.
type SchemaChange struct {
	// Previous is the old definition.
	Previous *Relation
	// Recreated reports another table under the same name, Renamed the same table under another name.
	Recreated, Renamed bool
	// Identity reports that the replica identity has changed.
	Identity bool
	// Added, Dropped and Retyped name columns; Retyped those with another type or modifier. A renamed column is dropped
	// and added.
	Added, Dropped, Retyped []string
}

// String describes the change for people to read.
func (s *SchemaChange) String() string {
	var parts []string
	for _, part := range []struct {
		is   bool
		text string
	}{
		{s.Recreated, "recreated"},
		{s.Renamed, "renamed from " + s.Previous.Name()},
		{s.Identity, "another replica identity"},
		{len(s.Added) > 0, "added " + strings.Join(s.Added, ", ")},
		{len(s.Dropped) > 0, "dropped " + strings.Join(s.Dropped, ", ")},
		{len(s.Retyped) > 0, "retyped " + strings.Join(s.Retyped, ", ")},
	} {
		if part.is {
			parts = append(parts, part.text)
		}
	}
	return strings.Join(parts, "; ")
}

// schemaTracker holds the definition of each table at its last change, across connections. It belongs to the goroutine
// that calls Next.
type schemaTracker struct {
	tables map[uint32]*Relation
	names  map[string]uint32
}

func newSchemaTracker() *schemaTracker {
	return &schemaTracker{tables: map[uint32]*Relation{}, names: map[string]uint32{}}
}

// noteRelation returns how a table differs from its previous definition, nil if it does not or was not seen before.
func (s *schemaTracker) noteRelation(r *Relation) *SchemaChange {
	before := s.tables[r.OID]
	if before == r {
		return nil
	}
	var change *SchemaChange
	switch other, known := s.names[r.Name()]; {
	case before != nil:
		change = compareRelations(before, r)
		if before.Name() != r.Name() && s.names[before.Name()] == r.OID {
			delete(s.names, before.Name())
		}
	case known && other != r.OID:
		change = compareRelations(s.tables[other], r)
		change.Recreated = true
	}
	s.tables[r.OID], s.names[r.Name()] = r, r.OID
	if change == nil || change.String() == "" {
		return nil
	}
	return change
}

func compareRelations(before, after *Relation) *SchemaChange {
	change := &SchemaChange{Previous: before, Renamed: before.Name() != after.Name(), Identity: before.Identity != after.Identity}
	for _, c := range after.Columns {
		switch i := before.Index(c.Name); {
		case i < 0:
			change.Added = append(change.Added, c.Name)
		case before.Columns[i].TypeOID != c.TypeOID || before.Columns[i].Modifier != c.Modifier:
			change.Retyped = append(change.Retyped, c.Name)
		case before.Columns[i].Key != c.Key:
			change.Identity = true
		}
	}
	for _, c := range before.Columns {
		if after.Index(c.Name) < 0 {
			change.Dropped = append(change.Dropped, c.Name)
		}
	}
	return change
}
