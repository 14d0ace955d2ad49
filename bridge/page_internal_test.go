package bridge

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

func TestARowThatIsFoundDoesNotTakeThePlaceOfItsChange(t *testing.T) {
	t.Parallel()
	var p page
	p.putChange("a", 1, delta.FeedChange{})
	p.putChange("a", 1, delta.FeedChange{Listed: true})
	p.putChange("b", 1, delta.FeedChange{Listed: true})
	p.putChange("c", 1, delta.FeedChange{Listed: true})
	p.putChange("c", 1, delta.FeedChange{})
	require.Equal(t, []delta.FeedChange{{}, {Listed: true}, {}}, p.changes)
}
