// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package conditions is where every condition of every status is made: those of Gateway API and Fairway kinds, of
// Services and of pods. Nobody else makes one, so that times, generations, lengths and the style of messages are right
// everywhere; a test looks for others.
//
// Messages are sentences: a capital letter first, a full stop at the end. Packages hand in whole sentences or what is
// one but for that (the parts that reports are joined from), and get a sentence.
//
// Types and reasons are not declared here but in api/v1alpha1, all of them: who waits for a condition or tells one
// reason from another, as kubectl wait, pipelines and dashboards do, relies on them as on any field of the API,
// whichever kind they are on and whichever component writes them. Those of the Gateway API are the Gateway API's.
package conditions
