// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSpellingsOfHeaders: the list and the expression agree on which names are the same header.
func TestSpellingsOfHeaders(t *testing.T) {
	require.Empty(t, OtherSpellings("Authorization"))
	require.ElementsMatch(t, []string{"x-user_name", "x_user-name", "x_user_name"}, OtherSpellings("X-User-Name"))
	require.ElementsMatch(t, []string{"x-user-name", "x-user_name", "x_user_name"}, OtherSpellings("x_user-name"))
	for _, name := range []string{
		"host", "X-User", "x_user", "x-user_name", "a--b", "a-b-c-d-e-f", "-x.y-", "x-real-role-of-user",
	} {
		all := regexp.MustCompile(`^(?:` + SpellingsPattern(name) + `)$`)
		listed := OtherSpellings(name)
		separators := regexp.MustCompile(`[-_]`).FindAllString(name, -1)
		require.Len(t, listed, 1<<len(separators)-1, name)
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(listed))), len(listed), name)
		for _, s := range listed {
			require.True(t, all.MatchString(s) && s != strings.ToLower(name), "%s of %s", s, name)
			require.Equal(t, HeaderSpelled(name), HeaderSpelled(s))
		}
		require.True(t, all.MatchString(strings.ToLower(name)), name)
		for _, s := range []string{"x", "x-user-", "xx-user", "x.user", "-xzy-"} {
			require.False(t, all.MatchString(s), "%s is not %s", s, name)
		}
	}
	require.False(t, ManySpellings("a-b-c_d-e-f"))
	require.True(t, ManySpellings("a-b-c_d-e-f-g"))
	require.Equal(t, []string{"a_b_c_d_e_f_g"}, OtherSpellings("a-b-c-d-e-f-g"))
}
