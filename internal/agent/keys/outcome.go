// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"cmp"
	"slices"
	"time"

	"github.com/fairway-mesh/fairway/internal/counts"
)

// outcome is what came of asking for keys: the operator is told, for the statuses of policies.
type outcome struct {
	// row has the same outcome all along, before is the kind of the one before it.
	row    counts.Count
	before counts.Kind
	// untold: the operator isn't told of it yet.
	untold bool
}

// note one more, and say whether it begins a row. Keys that come as they did before are not worth telling.
func (o *outcome) note(kind counts.Kind, err error, now time.Time) (turned bool) {
	turned = o.row.Kind != kind
	if turned {
		o.before = o.row.Kind
		o.row = counts.Count{Series: counts.Series{Kind: kind}, Since: now}
	}
	o.row.Value++
	o.row.Last, o.row.Why = now, ""
	if err != nil {
		o.row.Why = counts.Text(err.Error())
	}
	o.untold = o.untold || turned || err != nil
	return turned
}

// Take is what came of asking since the last time, or all there is; of counts.MaxKeys sources at most, and first of
// those that give no keys.
func (k *Keeper) Take(all bool) (out []counts.Count) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var tell []*kept
	for _, of := range k.of {
		for s, e := range of {
			if e.row.Kind == "" || !all && !e.untold {
				continue
			}
			e.row.Destination = s.Name()
			tell = append(tell, e)
		}
	}
	slices.SortFunc(tell, func(a, b *kept) int {
		if fetched := a.row.Kind == counts.KeysFetched; fetched != (b.row.Kind == counts.KeysFetched) {
			if fetched {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.row.Destination, b.row.Destination)
	})
	for _, e := range tell[:min(len(tell), counts.MaxKeys)] {
		e.untold = false
		out = append(out, e.row)
	}
	return out
}
