"""A simulated NV centre at instrument level: driven by light and by sampled microwaves.

* `physics`: the numbers of one centre, with their sources;
* `propagator`: what sampled microwaves do to a spin;
* `spin`: the electron spin, played by the timeline of an AWG;
* `optics`: the lights and the jump process they drive;
* `centre`: both together, a source of photons for the simulated ADwin.
"""
