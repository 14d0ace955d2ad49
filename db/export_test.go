package db

import (
	"context"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// InformResourcesSQL is the statement of sets.
const InformResourcesSQL = informResources

// InformPage is how many objects it takes.
const InformPage = informPage

// Names for the tests of the statements' conditions.
var (
	InformParams = informParams
	KeptParams   = keptParams
	NeedsWrite   = needsWrite
)

// InformOnce informs an object, as Inform does, without asking again; nil where it would.
func InformOnce(ctx context.Context, conn DBTX, o *deltatype.ObjectInformParams, options InformOptions) (*deltatype.ObjectInformResult, error) {
	to := make(answers, 1)
	err := informRow(ctx, conn, o, options, to)
	return to[0], err
}
