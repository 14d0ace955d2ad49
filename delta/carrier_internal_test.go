package delta

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// injectedLines returns the values that a Telemetry sets, as they are stored.
func injectedLines(values ...string) string {
	var set injection
	for i := 0; i < len(values); i += 2 {
		set.addValue(values[i], values[i+1])
	}
	return set.lines
}

func TestATraceparentIsStoredShortAndReadAsItWas(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	stored := injectedLines("traceparent", parent, "tracestate", "vendor=1")
	require.Equal(t, "CvdlGRbNQ92ESOshHIAxnLeta3FpIDMxAQ\ntracestate: vendor=1", stored)
	read, err := readCarrier(appendHeaders(stored, map[string][]byte{"tenant": []byte("acme")}))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"traceparent": parent, "tracestate": "vendor=1"}, read.span)
	require.Equal(t, map[string][]byte{"tenant": []byte("acme")}, read.headers)
}

// A value that does not survive base64 is stored as it is.
func TestATraceparentOfAnotherFormIsStoredAsItIs(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, value := range []string{
		"", "00-1", strings.ToUpper(parent), "01" + parent[2:], parent + "-more", parent[:54], "00-" + strings.Repeat("g", 52),
		parent[:35] + "_" + parent[36:], parent[:52] + "_" + parent[53:], parent[:10] + "-" + parent[11:],
	} {
		stored := injectedLines("traceparent", value)
		require.Equal(t, "traceparent: "+value, stored)
		read, err := readCarrier(stored)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"traceparent": value}, read.span)
	}
	// The name of another format, such as B3, is not a W3C name.
	require.Equal(t, "b3: "+parent, injectedLines("b3", parent))
}

func TestACarrierThatIsNoneIsAnError(t *testing.T) {
	t.Parallel()
	for _, stored := range []string{"x", "CvdlGRbNQ92ESOshHIAxnLeta3FpIDMx", "header a: *", "header YQ: *"} {
		_, err := readCarrier(stored)
		require.ErrorContains(t, err, "the row's carrier", stored)
	}
}
