//go:build race

package main

// raceCost is how many times the memory a program takes with the race detector.
const raceCost = 10
