package console

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A survey that has waited for a silent server is not shown for minutes.
func TestASurveyIsShownForSecondsAndAMinuteAtMost(t *testing.T) {
	t.Parallel()
	for took, least := range map[time.Duration]time.Duration{
		10 * time.Millisecond: 3 * time.Second, time.Second: 20 * time.Second, 18 * time.Second: time.Minute, 2 * time.Minute: time.Minute,
	} {
		require.Equal(t, took+least, (&surveyResult{took: took}).maxAge())
	}
}
