package db

import (
	"context"
	"time"
)

const (
	// forgetPage is how many notes of a listing one statement removes.
	forgetPage = 10_000
	// stalePage is how many stale objects one statement forgets, which says so itself: a plan for any number would read the whole table.
	stalePage = 1000
)

// ForgetListing removes what a pass has listed, page by page.
func ForgetListing(ctx context.Context, conn DBTX, pass string) error {
	page := ForgetListingParams{Pass: pass, Page: forgetPage}
	for {
		last, err := New().ForgetListing(ctx, Planned(conn, forgetPage), page)
		if err != nil || last == "" {
			return err
		}
		page.AfterObjectID = last
	}
}

// SweepListings removes what was listed by passes of which nothing was written or awaited for so long: their worker died.
func SweepListings(ctx context.Context, conn DBTX, older time.Duration) error {
	passes, err := New().AbandonedListings(ctx, conn, older)
	if err != nil {
		return err
	}
	for _, pass := range passes {
		if err := ForgetListing(ctx, conn, pass); err != nil {
			return err
		}
	}
	return nil
}

// SweepStale forgets the stale objects that no pass has listed for so long, page by page.
func SweepStale(ctx context.Context, conn DBTX, older time.Duration) error {
	for {
		forgotten, err := New().SweepStale(ctx, conn, older)
		if err != nil || forgotten < stalePage {
			return err
		}
	}
}
