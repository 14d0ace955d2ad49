package exposition_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/exposition"
)

func TestSamplesOfAFamilyAreTogether(t *testing.T) {
	t.Parallel()
	table := exposition.NewTable([]exposition.Family{
		{Name: "took_seconds", Type: "histogram", Help: "How long it took."},
		{Name: "due", Type: "gauge", Help: "What is due."},
		{Name: "nothing", Type: "gauge", Help: "There is none."},
	})
	text := table.New()
	text.Add("due", exposition.Labels("kind", `b "quoted" \ and`+"\n", "namespace", "x"), 2)
	text.Add("took_seconds_bucket", exposition.Labels("le", "10"), 1)
	text.Add("took_seconds_bucket", exposition.Labels("le", "+Inf"), 2)
	text.Add("due", exposition.Labels("kind", "a"), .5)
	text.Add("unknown", "", 1)
	text.Include(func(w io.Writer) {
		_, _ = fmt.Fprint(w, "# HELP due\n\ntook_seconds_sum 3\ntook_seconds_count 2\nother{a=\"b\"} 1\n")
	})
	var out bytes.Buffer
	_, err := text.WriteTo(&out)
	require.NoError(t, err)
	require.Equal(t, `# HELP took_seconds How long it took.
# TYPE took_seconds histogram
took_seconds_bucket{le="10"} 1
took_seconds_bucket{le="+Inf"} 2
took_seconds_sum 3
took_seconds_count 2
# HELP due What is due.
# TYPE due gauge
due{kind="a"} 0.5
due{kind="b \"quoted\" \\ and\n",namespace="x"} 2
`, out.String())
	require.Empty(t, exposition.Labels())
}
