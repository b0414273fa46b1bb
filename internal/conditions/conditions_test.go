// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package conditions

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMessagesAreSentences(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "",
		"all backends were found":             "All backends were found.",
		"All 3 node proxies are ready.":       "All 3 node proxies are ready.",
		"2/2 proxies serve":                   "2/2 proxies serve.",
		"spec.addresses can't be chosen":      "spec.addresses can't be chosen.",
		"mTLS is spoken":                      "mTLS is spoken.",
		"fairway.dev/mesh names nothing":      "fairway.dev/mesh names nothing.",
		"cert-manager is missing":             "cert-manager is missing.",
		"Proxy a rejects it: its own words\n": "Proxy a rejects it: its own words.",
		"is it there?":                        "Is it there?",
		"not captured:":                       "Not captured.",
		"it was cut…":                         "It was cut…",
		"école":                               "école.",
		"near \x1b[2J\r\u202e it":             `Near \x1b[2J\r\u202e it.`,
	} {
		require.Equal(t, want, sentence(text))
		require.Equal(t, want, sentence(want), "a sentence stays one")
	}
}

func TestLongMessagesAreCutToWhatTheAPIServerTakes(t *testing.T) {
	long := strings.Repeat("ä", maxMessage)
	for most, short := range map[int]string{32768: forCondition(long), 1024: Note(long)} {
		require.LessOrEqual(t, len(short), most)
		require.Greater(t, len(short), most-4)
		require.True(t, utf8.ValidString(short))
		require.True(t, strings.HasSuffix(short, "ä…"))
	}
	whole := "A" + strings.Repeat("b", maxMessage-2) + "."
	require.Equal(t, whole, forCondition(whole))
}

func TestASetKeepsTimesAndWhatIsNotItsOwn(t *testing.T) {
	long := metav1.NewTime(time.Unix(1000, 0))
	existing := []metav1.Condition{
		{Type: "example.org/Mine", Status: "Unknown", Reason: "Theirs", Message: "as they like", LastTransitionTime: long},
		{Type: "Accepted", Status: "True", Reason: "Accepted", LastTransitionTime: long},
		{Type: "Programmed", Status: "True", Reason: "Programmed", LastTransitionTime: long},
		{Type: "Gone", Status: "True", Reason: "Gone", LastTransitionTime: long},
	}
	s := For(2, existing)
	s.True("Accepted", "Accepted", "it is fine")
	s.False("Programmed", "Pending", "it is not there")
	s.Remove("Gone")
	require.Equal(t, existing[0], *s.Get("example.org/Mine"))
	require.Equal(t, metav1.Condition{
		Type: "Accepted", Status: "True", Reason: "Accepted", Message: "It is fine.", ObservedGeneration: 2,
		LastTransitionTime: long,
	}, *s.Get("Accepted"))
	require.True(t, s.IsTrue("Accepted"))
	require.True(t, s.Get("Programmed").LastTransitionTime.After(long.Time))
	require.Nil(t, s.Get("Gone"))
	require.Len(t, s.List(), 3)
	require.Equal(t, metav1.ConditionTrue, meta.FindStatusCondition(existing, "Programmed").Status, "what was given stays")
}

func TestAPodsConditionIsSetBesidesOthers(t *testing.T) {
	long := metav1.NewTime(time.Unix(1000, 0))
	pod := &corev1.Pod{}
	pod.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodReady, Status: "True", LastTransitionTime: long, ObservedGeneration: 3},
	}
	SetOfPod(pod, "fairway.dev/Captured", "True", "Captured", "it is captured")
	OfPod(pod, "fairway.dev/Captured").LastTransitionTime = long
	SetOfPod(pod, "fairway.dev/Captured", "True", "Captured", "it is captured, strictly")
	require.Equal(t, "It is captured, strictly.", OfPod(pod, "fairway.dev/Captured").Message)
	require.Equal(t, long, OfPod(pod, "fairway.dev/Captured").LastTransitionTime)
	SetOfPod(pod, "fairway.dev/Captured", "False", "OptedOut", "not captured")
	require.NotEqual(t, long, OfPod(pod, "fairway.dev/Captured").LastTransitionTime)
	require.Equal(t, int64(3), OfPod(pod, corev1.PodReady).ObservedGeneration)
	require.Len(t, pod.Status.Conditions, 2)
	require.Nil(t, OfPod(pod, "other"))
}
