// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// TestNotesReachEveryReplica, those that were there and those that come later, once and in order.
func TestNotesReachEveryReplica(t *testing.T) {
	ca := newAuthority(t)
	a, b := newReplica(t, ca, long(quick)), newReplica(t, ca, long(quick))
	a.book.Note("before")
	b.book.SetPeers([]string{a.addr})
	eventually.True(t, "what was known", b.knows("before"))
	a.book.Note("during")
	eventually.True(t, "what is new", b.knows("before", "during"))
	c := newReplica(t, ca, long(quick))
	c.book.SetPeers([]string{a.addr})
	eventually.True(t, "all of it", c.knows("before", "during"))
	require.True(t, a.knows()(), "nobody tells it what it said")
}

// TestNotesAreBounded: the latest ones are kept.
func TestNotesAreBounded(t *testing.T) {
	f := newFeed(nil, "", quick, testLog(t))
	slow := f.join()
	for i := range maxNotes + 10 {
		f.note(fmt.Sprint(i))
	}
	notes := f.unnoted(slow)
	require.Len(t, notes, maxNotes)
	require.Equal(t, "10", notes[0])
	require.Empty(t, f.unnoted(slow))
	f.note("last")
	require.Equal(t, []string{"last"}, f.unnoted(slow))
}
