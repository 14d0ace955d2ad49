package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The pages match the report beside them, so no figures were written by hand.
func TestTheDocsSayWhatWasMeasured(t *testing.T) {
	t.Parallel()
	docs := filepath.Join("..", "..", "docs")
	var r report
	require.NoError(t, readJSON(filepath.Join(docs, reportFile), &r))
	all, err := renderPages(docs, r)
	require.NoError(t, err)
	for _, p := range all {
		there, err := os.ReadFile(filepath.Join(docs, p.file))
		require.NoError(t, err)
		require.Equal(t, p.content, string(there), "%s: run `go run ./internal/bench -docs docs`", p.file)
	}
}

// The same for the report of `make bench-large`, which is a separate run.
func TestTheDocsSayWhatWasMeasuredAtSize(t *testing.T) {
	t.Parallel()
	docs := filepath.Join("..", "..", "docs")
	r, err := readLarge(docs)
	require.NoError(t, err)
	p, err := largePage(docs, r)
	require.NoError(t, err)
	there, err := os.ReadFile(filepath.Join(docs, p.file))
	require.NoError(t, err)
	require.Equal(t, p.content, string(there), "%s: run `go run ./internal/bench -large 10000000 -docs docs`", p.file)
}

func TestTheModelMeetsWhatItIsFittedTo(t *testing.T) {
	t.Parallel()
	r := report{Facts: facts{Scale: 1}, Figures: []figure{
		{Name: singleName, Delta: 100},
		figure{Name: fillName}.withValues(10_000),
		{Name: besideName, Ratio: 0.81},
		figure{Name: diskName}.withValues(1000),
		figure{Name: workflowsOpen}.withValues(1000),
	}}
	large := largeReport{Rows: 10_000_000, Slices: []slicePart{{There: 100_000, PerSecond: 2000}, {There: 10_000_000, PerSecond: 1280}}}
	m, err := newModel(r, large)
	require.NoError(t, err)
	require.InDelta(t, 100, m.firstSync(1e6, true).Seconds(), 0.1)
	require.InDelta(t, 0.81, m.perSecond(1e6, true)/m.perSecond(1e4, true), 0.001)
	require.InDelta(t, 0.8, m.perSecond(1e7, true)/m.perSecond(1e6, true), 0.001)
	require.InDelta(t, 1e4, m.firstSync(1e6, false).Seconds(), 0.1)
	for _, line := range []string{"| 1 M | measured |", "| 10 M | fitted |", "| 100 M | simulated |"} {
		require.Contains(t, m.renderTable(), line)
	}

	_, err = newModel(report{Facts: facts{Scale: 1}}, large)
	require.ErrorContains(t, err, singleName)
	_, err = newModel(r, largeReport{})
	require.ErrorContains(t, err, "make bench-large")
}

func TestOnlyWhatIsBetweenTheMarksIsReplaced(t *testing.T) {
	t.Parallel()
	text := "a\n" + beginMark("x") + "old\n" + end + "\nb\n"
	got, err := replaceBlock(text, "x", "new\n")
	require.NoError(t, err)
	require.Equal(t, "a\n"+beginMark("x")+"new\n"+end+"\nb\n", got)
	_, err = replaceBlock(text, "y", "new\n")
	require.Error(t, err)
}

// The pages match a report after it is written into the docs.
func TestTheDocsTakeWhatWasMeasuredAtSize(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "scaling.md"), []byte("a\n"+beginMark("large")+notMeasured+end+"\nb\n"), 0o600))
	nothing, err := readLarge(folder)
	require.NoError(t, err)
	require.Nil(t, nothing)
	r := largeReport{Rows: 7, Slices: []slicePart{{7, 7, 3}}}
	require.NoError(t, writeLargeDocs(folder, r))
	read, err := readLarge(folder)
	require.NoError(t, err)
	require.Equal(t, r, *read)
	p, err := largePage(folder, read)
	require.NoError(t, err)
	there, err := os.ReadFile(filepath.Join(folder, "scaling.md"))
	require.NoError(t, err)
	require.Equal(t, p.content, string(there))
	require.Contains(t, p.content, "| the first 7 | 7 | 3/s |")
}
