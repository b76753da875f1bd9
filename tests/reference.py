"""Slow, obvious float64 twins of the kernels in `scanpy_scvi.numerics`. Written for reading, not for speed."""

import numpy as np
from scipy.special import digamma, expit, gammaln, logsumexp


def dense(rows, n_genes, log1p=False):
    """The minibatch as a float64 array."""
    out = np.zeros((len(rows.indptr) - 1, n_genes))
    for i in range(len(out)):
        for j in range(rows.indptr[i], rows.indptr[i + 1]):
            out[i, rows.indices[j]] = rows.data[j]
    return np.log1p(out) if log1p else out


def poisson_logpmf(x, mu):
    return x * np.log(mu) - mu - gammaln(x + 1)


def nb_logpmf(x, mu, theta):
    # Γ(x + θ) / (x! Γ(θ)) (θ / (θ + μ))^θ (μ / (θ + μ))^x
    return (
        gammaln(x + theta)
        - gammaln(theta)
        - gammaln(x + 1)
        - theta * np.log1p(mu / theta)
        + x * (np.log(mu) - np.log(theta + mu))
    )


def zinb_logpmf(x, mu, theta, zero_logits):
    log_pi, log_not_pi = -np.logaddexp(0, -zero_logits), -np.logaddexp(0, zero_logits)
    nb = log_not_pi + nb_logpmf(x, mu, theta)
    return np.where(x == 0, np.logaddexp(log_pi, nb), nb)


def nb_slopes(x, mu, theta):
    """d log NB / d log mu and / d log theta."""
    d_theta = digamma(x + theta) - digamma(theta) - np.log1p(mu / theta) + (mu - x) / (theta + mu)
    return (x - mu) * theta / (theta + mu), theta * d_theta


def zinb_slopes(x, mu, theta, zero_logits):
    """d log ZINB / d log mu, / d log theta, / d zero_logits."""
    eta, t = nb_slopes(x, mu, theta)
    pi = expit(zero_logits)
    explained = expit(zero_logits - nb_logpmf(np.zeros_like(x), mu, theta))  # share of a zero due to inflation
    not_inflated = np.where(x == 0, 1 - explained, 1.0)
    return not_inflated * eta, not_inflated * t, np.where(x == 0, explained - pi, -pi)


def softmax_head(x, logits, log_library, log_theta=None, theta_rows=None, zero_logits=None, weights=None):
    """(nll, d logits, d log_library, d log_theta, d zero_logits) of any of the three families."""
    logits, log_library = np.asarray(logits, float), np.asarray(log_library, float)
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    log_rho = logits - logsumexp(logits, axis=1, keepdims=True)
    mu = np.exp(log_library[:, None] + log_rho)
    d_theta = d_zero = None
    if log_theta is None:
        log_p, slope = poisson_logpmf(x, mu), x - mu
    else:
        theta = np.exp(np.asarray(log_theta, float))[theta_rows]
        if zero_logits is None:
            log_p, (slope, t_slope) = nb_logpmf(x, mu, theta), nb_slopes(x, mu, theta)
        else:
            zero_logits = np.asarray(zero_logits, float)
            log_p = zinb_logpmf(x, mu, theta, zero_logits)
            slope, t_slope, h_slope = zinb_slopes(x, mu, theta, zero_logits)
            d_zero = -weights[:, None] * h_slope
        d_theta = np.zeros(np.shape(log_theta))
        np.add.at(d_theta, theta_rows, -weights[:, None] * t_slope)
    slope = -weights[:, None] * slope
    d_library = slope.sum(1)
    return -log_p.sum(1), slope - np.exp(log_rho) * d_library[:, None], d_library, d_theta, d_zero
