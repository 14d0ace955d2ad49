package delta

import (
	"context"

	"github.com/chariot-giving/delta/db"
)

// unsettledPage is how many objects of a listing one update of a watch reads.
const unsettledPage = 5000

// unsettledCount counts the unsettled objects of a complete listing. Counting all of them at each update of a watch,
// several times a second, would be too expensive for a large listing: each update reads one page, and settled pages are not
// read again. So the count of a listing with several pages is some updates late. Objects of pages that were not read yet
// count as unsettled.
type unsettledCount struct {
	kind, pass string
	size       int

	// counted is set once the listing was counted; listed is its size.
	counted bool
	listed  int
	// pages are the pages read so far with unsettled objects. after is where the latest new page ended. whole is set when
	// that was the end of the listing.
	pages []listedPage
	after string
	whole bool
	// settled counts the objects that had settled when their page was read.
	settled int
	// next is the index of the page to read again next.
	next int
}

// listedPage is a page of a listing, with its number of unsettled objects.
type listedPage struct {
	after     string
	unsettled int
}

// refreshCount reads one page, and returns the counts.
func (u *unsettledCount) refreshCount(ctx context.Context, conn db.DBTX) (listed, unsettled int, err error) {
	if !u.counted {
		count, err := db.New().CountListed(ctx, conn, u.pass)
		if err != nil {
			return 0, 0, err
		}
		u.listed, u.counted = int(count), true
	}
	if u.whole {
		err = u.rereadPage(ctx, conn)
	} else {
		err = u.readNextPage(ctx, conn)
	}
	return u.listed, max(u.listed-u.settled, 0), err
}

// readNextPage reads the next new page.
func (u *unsettledCount) readNextPage(ctx context.Context, conn db.DBTX) error {
	page, err := u.readPage(ctx, conn, u.after)
	if err != nil {
		return err
	}
	u.settled += int(page.Listed - page.Unsettled)
	if page.Unsettled > 0 {
		u.pages = append(u.pages, listedPage{after: u.after, unsettled: int(page.Unsettled)})
	}
	u.after, u.whole = page.LastObjectID, int(page.Listed) < u.size
	return nil
}

// rereadPage reads one of the unsettled pages again, in turn.
func (u *unsettledCount) rereadPage(ctx context.Context, conn db.DBTX) error {
	if len(u.pages) == 0 {
		return nil
	}
	at := u.next % len(u.pages)
	page, err := u.readPage(ctx, conn, u.pages[at].after)
	if err != nil {
		return err
	}
	u.settled += u.pages[at].unsettled - int(page.Unsettled)
	if u.pages[at].unsettled = int(page.Unsettled); page.Unsettled == 0 {
		last := len(u.pages) - 1
		u.pages[at], u.pages = u.pages[last], u.pages[:last]
		u.next = at
		return nil
	}
	u.next = at + 1
	return nil
}

func (u *unsettledCount) readPage(ctx context.Context, conn db.DBTX, after string) (db.UnsettledOfPageRow, error) {
	return db.New().UnsettledOfPage(ctx, db.Planned(conn, u.size), db.UnsettledOfPageParams{
		Kind: u.kind, Pass: u.pass, AfterObjectID: after, Page: int32(u.size), //nolint:gosec // it has a bound
	})
}
