// Package deltatype holds the plain types that Delta's packages share: the object a user declares, the row that
// Postgres keeps of it, its states, and what an inform answers. It imports the standard library only.
package deltatype
