// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// TestFactsReachEveryReplica, the latest of each subject, those that were there and those that come later.
func TestFactsReachEveryReplica(t *testing.T) {
	ca := newAuthority(t)
	a, b := newReplica(t, ca, long(quick)), newReplica(t, ca, long(quick))
	a.book.Tell("x", "x=0")
	a.book.Tell("x", "x=1")
	a.book.Tell("gone", "gone=1")
	a.book.Tell("gone", "")
	b.book.SetPeers([]string{a.addr})
	eventually.True(t, "what was known", b.knows("x=1"))
	a.book.Tell("y", "y=1")
	eventually.True(t, "what is new", b.knows("x=1", "y=1"))
	require.True(t, a.knows()(), "nobody tells it what it said")
}

// TestFactsAreBounded: there is no room for more subjects, but for what is new about those that are known.
func TestFactsAreBounded(t *testing.T) {
	f := newFeed(nil, "", quick, testLog(t))
	for i := range maxFacts + 10 {
		f.tell(fmt.Sprint(i), "0")
	}
	f.tell("1", "1")
	fo := f.join()
	facts := f.untold(fo)
	require.Len(t, facts, maxFacts)
	require.Contains(t, facts, "1")
	require.Empty(t, f.untold(fo))
}
