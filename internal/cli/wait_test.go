// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// wrong is a mesh with these problems; without any, it is well.
func wrong(problems ...string) *report {
	r := &report{}
	for _, p := range problems {
		r.problem(meshNotReady, "", "%s", p)
	}
	r.sorted()
	return r
}

func connects(context.Context) (*cluster, error) { return &cluster{}, nil }

// What is waited for is told when it changes, and not otherwise.
func TestWaitUntilAllIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		found := []*report{wrong("a", "b"), wrong("a", "b"), wrong("b"), wrong()}
		looks, tries := 0, 0
		var out bytes.Buffer
		w := waiter{
			connect: func(context.Context) (*cluster, error) {
				if tries++; tries == 1 {
					return nil, passingError{errors.New("nobody listens there")}
				}
				return &cluster{}, nil
			},
			look: func(context.Context, *cluster) state {
				looks++
				return found[looks-1]
			},
			out: &out,
		}
		began := time.Now()
		got, err := w.run(t.Context())
		require.NoError(t, err)
		require.Same(t, found[3], got)
		require.Equal(t, 4*waitStep, time.Since(began))
		require.Equal(t, "waiting: nobody listens there\nwaiting: a (and 1 more)\nwaiting: b\n", out.String())
	})
}

// A look that time cuts short says nothing about the mesh: the one before counts.
func TestWaitRunsOutOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), waitStep+time.Second)
		defer cancel()
		first := wrong("a")
		looks := 0
		w := waiter{connect: connects, out: &bytes.Buffer{}, look: func(ctx context.Context, _ *cluster) state {
			if looks++; looks == 1 {
				return first
			}
			<-ctx.Done()
			return wrong("no answer in time")
		}}
		got, err := w.run(ctx)
		require.NoError(t, err)
		require.Same(t, first, got)
		require.Equal(t, 2, looks)
	})
}

// One look that hangs is not all there is.
func TestWaitLooksAgainAfterOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		w := waiter{connect: connects, out: &bytes.Buffer{}, look: func(ctx context.Context, _ *cluster) state {
			if looks++; looks == 1 {
				<-ctx.Done()
				return wrong("no answer in time")
			}
			return wrong()
		}}
		got, err := w.run(t.Context())
		require.NoError(t, err)
		require.True(t, got.well())
	})
}

func TestWaitForWhatDoesNotPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refuses the credentials")
		w := waiter{connect: func(context.Context) (*cluster, error) { return nil, refused }}
		_, err := w.run(t.Context())
		require.ErrorIs(t, err, refused)
		away := passingError{errors.New("nobody listens there")}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w = waiter{connect: func(context.Context) (*cluster, error) { return nil, away }, out: &bytes.Buffer{}}
		_, err = w.run(ctx)
		require.ErrorIs(t, err, away)
	})
}
