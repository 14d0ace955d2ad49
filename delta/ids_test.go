package delta_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// oddIDs maps ids with special characters to the end of their workflow ids; empty if that is a hash.
func oddIDs() map[string]string {
	return map[string]string{
		"🙂":                                 "%F0%9F%99%82",
		"é":                                 "%C3%A9",
		"e\u0301":                           "e%CC%81", // looks like the one above
		"50%":                               "50%25",
		"%41":                               "%2541",
		"A":                                 "A", // a naive decoding of the one above
		"a~b":                               "a%7Eb",
		" both ends ":                       "%20both%20ends%20",
		"both ends":                         "both%20ends",
		"שלום/مرحبا":                        "%D7%A9%D7%9C%D7%95%D7%9D/%D9%85%D8%B1%D8%AD%D8%A8%D8%A7",
		"a/b":                               "a/b",
		"a/":                                "a/",
		`quo"te'\`:                          `quo"te'\`,
		strings.Repeat("x", 511) + "1":      "",
		strings.Repeat("x", 511) + "2":      "",
		strings.Repeat("🙂", 128):            "",
		strings.Repeat("%", 100):            "",
		"jürgen@example.com":                "j%C3%BCrgen@example.com",
		"\u202eright to left":               "%E2%80%AEright%20to%20left",
		"\U000E0041 tag, \uFFFD and \u200D": "%F3%A0%81%81%20tag,%20%EF%BF%BD%20and%20%E2%80%8D",
	}
}

func TestObjectsOfAnyIDAreSynced(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) { testOddIDs(t, g, false) })
}

func TestObjectsOfAnyHashedIDAreSynced(t *testing.T) {
	soak.Long(t)
	inEachModeBut(t, "each", func(t *testing.T, g mode) { testOddIDs(t, g, true) })
}

func testOddIDs(t *testing.T, g mode, hashed bool) {
	config := g.config(g.controller(func(_ context.Context, j job) error {
		if j.Object.Plan == "fails" && j.Attempt == 1 {
			return errors.New("once")
		}
		return nil
	}))
	config.HashObjectIDs = hashed
	c := g.start(config)
	var objects []delta.Object
	workflow, ref := map[string]string{}, map[string]map[string]any{}
	for id, ends := range oddIDs() {
		objects = append(objects, g.object(account{Name: id, Plan: "fails"}))
		workflow[id], ref[id] = c.ResourceWorkflowID(g.kind, id), map[string]any{"object_id": id}
		if hashed {
			var hash string
			require.NoError(t, g.Pool.QueryRow(t.Context(), "SELECT delta_hash_id($1, $2)", g.kind, id).Scan(&hash))
			workflow[id], ref[id] = c.ResourceWorkflowID(g.kind, hash), map[string]any{"hashed_id": hash}
			ends = hash
		}
		if ends != "" {
			require.Equal(t, g.Prefix+"/"+g.kind+"/"+ends, workflow[id])
		} else {
			require.Len(t, workflow[id][strings.LastIndex(workflow[id], "~"):], 27)
			require.LessOrEqual(t, len(workflow[id]), 255)
		}
	}
	ids := map[string]bool{}
	for _, one := range workflow {
		ids[one] = true
	}
	require.Len(t, ids, len(workflow), "all workflow ids differ")
	neighbours := names("ok", 20)
	for _, name := range neighbours {
		objects = append(objects, g.object(account{Name: name}))
	}

	// In a batch, and failed members as singles.
	_, err := c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	for _, name := range neighbours {
		g.awaitRow(name, synced(1))
	}
	for id := range workflow {
		row := g.awaitRow(id, synced(1))
		require.Equal(t, 2, row.Attempt, id)
		require.Len(t, row.Errors, 1, id)
		require.Equal(t, "once", row.Errors[0].Error, id)
		// A failed member leaves its batch at once, unless its next attempt is due before a dispatcher of a busy machine has looked: then a batch has it again.
		if !strings.HasPrefix(row.WorkflowID, g.Prefix+"/"+g.kind+":batch/") {
			require.Equal(t, workflow[id], row.WorkflowID, id)
		}
	}
	// One by one.
	for id := range workflow {
		_, err := c.Inform(t.Context(), g.object(account{Name: id, Plan: "two"}), nil)
		require.NoError(t, err)
	}
	for id := range workflow {
		g.awaitRow(id, synced(2))
	}
	for id := range workflow {
		row, err := c.Sync(t.Context(), g.object(account{Name: id, Plan: "three"}), nil)
		require.NoError(t, err, id)
		require.EqualValues(t, 3, row.SyncedGeneration, id)
	}
	// By signals to their workflows.
	for id := range workflow {
		g.orderByID(workflow[id], "invalidate", ref[id])
	}
	for id := range workflow {
		g.awaitRow(id, synced(4))
	}
	for id := range workflow {
		g.orderByID(workflow[id], "delete", ref[id])
	}
	for id := range workflow {
		g.awaitRow(id, inState(deltatype.ResourceStateDeleted))
	}
	for _, name := range neighbours {
		row := g.row(g.kind, name)
		require.EqualValues(t, 1, row.SyncCount)
		require.Empty(t, row.Errors)
	}
}
