package db

import (
	"context"
	"time"
)

const (
	// forgetPage is how many notes of a listing one statement removes.
	forgetPage = 10_000
	// stalePage is how many stale objects one statement forgets. The number is in the statement, because a plan for any
	// number would read the whole table.
	stalePage = 1000
)

// ForgetListing removes a pass's recorded listing, page by page.
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

// SweepListings removes listings of passes that wrote and awaited nothing for so long, because their worker died.
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

// SweepStale forgets stale objects that no pass has listed for so long, page by page.
func SweepStale(ctx context.Context, conn DBTX, older time.Duration) error {
	for {
		forgotten, err := New().SweepStale(ctx, conn, older)
		if err != nil || forgotten < stalePage {
			return err
		}
	}
}
