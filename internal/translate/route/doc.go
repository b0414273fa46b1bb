// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package route turns HTTP rules of the model into Envoy's routes: which requests a rule is for, what becomes of them,
// and which HTTP filters a connection manager must have for that. It knows neither the listeners that lead here nor
// what the clusters are made of that it leads to, but for their names.
//
// Every function is pure and total: any value of the model gives resources that Envoy accepts. What can't be expressed
// is reported as a RuleError and answered with an error, so that one route's mistake never stops another's.
package route
