package bridge

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

func TestARowThatIsFoundDoesNotTakeThePlaceOfItsChange(t *testing.T) {
	t.Parallel()
	var p page
	p.put("a", 1, delta.FeedChange{})
	p.put("a", 1, delta.FeedChange{Listed: true})
	p.put("b", 1, delta.FeedChange{Listed: true})
	p.put("c", 1, delta.FeedChange{Listed: true})
	p.put("c", 1, delta.FeedChange{})
	require.Equal(t, []delta.FeedChange{{}, {Listed: true}, {}}, p.changes)
}
